"""The methods: each a short composition of the four phases' operators, one file a method."""
