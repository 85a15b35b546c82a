"""What tests need, ours and those of third parties: real servers, evidence, faults."""
