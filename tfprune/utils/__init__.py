"""What any package may need: files, text of strangers, processes, the console."""
