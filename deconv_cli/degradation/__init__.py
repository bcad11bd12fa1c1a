"""What the tasks undo."""
