"""Programs that print muse's speed as ratios to the raw SDKs and to the floor; they judge nothing by absolute times."""
