"""Images and volumes: what is asked of them at once, and the plans and steps of the tasks that change them."""
