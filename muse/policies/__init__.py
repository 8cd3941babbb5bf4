"""What surrounds the one impure line of a call, one policy a file; a policy knows no provider and no wire form."""
