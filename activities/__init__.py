"""Side effects: each module is one activity, called by workflows through its name."""
