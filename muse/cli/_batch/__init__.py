"""Parts of `muse batch`: its options, its run, its interrupt."""
