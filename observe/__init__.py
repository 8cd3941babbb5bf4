"""What is read from screens and recordings: describing, detecting; it knows no vendor."""
