"""What a payload may do, tried by payloads that do it: real processes, groups and sandboxes."""
