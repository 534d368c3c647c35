"""Host facts: what this host is and how it fares. Only `facts` is imported before the first answer."""
