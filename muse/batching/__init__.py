"""The parts of a batch, one noun each; `muse.batch` puts them together."""
