"""To-dos: the list of each day, its form, and the tools that read and change it."""
