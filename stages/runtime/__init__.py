"""What a stage runs in: reporting, stopping, device, processes, run folder, plugins."""
