"""Any folder of videos -> a library of windows and their vectors."""
