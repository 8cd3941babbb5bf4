"""The built-in topic `daily`: of each part of a day the sentence that says most."""
