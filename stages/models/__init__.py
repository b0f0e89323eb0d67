"""The networks: trunk, temporal transformer, student, teachers, checkpoints."""
