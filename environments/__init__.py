"""The environments: one file each, behind the Environment protocol."""
