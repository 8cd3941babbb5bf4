"""The segments of a day: listed, processed one by one, with their results."""
