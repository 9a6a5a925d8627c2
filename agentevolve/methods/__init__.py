"""The methods of the survey, one a file: a short composition of operators, its paper, its deviations.

A method is a function of a policy, tasks and a run, with its settings as keyword parameters; it does one round and returns
the policy that learnt. The number of the round is `run.round`.
"""
