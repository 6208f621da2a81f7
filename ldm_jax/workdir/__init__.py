"""What a work directory holds: its config, checkpoints and frozen parts."""
