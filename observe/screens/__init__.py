"""Images and videos of a screen: frames that changed, categories, stored frames. No model is called."""
