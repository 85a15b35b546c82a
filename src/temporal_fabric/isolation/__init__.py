"""What a payload may do: levels of isolation, which of them a host can hold, and the sandbox."""
