"""What the tools of an agent are made of, and where they come from; `muse.tools` puts them together."""
