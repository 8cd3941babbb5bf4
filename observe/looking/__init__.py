"""Pictures and recordings of a screen: frames that changed, kinds of screens, what is kept; it asks nothing."""
