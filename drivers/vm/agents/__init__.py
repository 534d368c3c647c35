"""The agents inside of guests: what they tell, and what they are asked to do."""
