"""The task sets: one YAML file each."""
