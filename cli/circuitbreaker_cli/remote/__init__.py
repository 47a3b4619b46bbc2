"""What is reached over there: the API server by kubectl, Redis by the operator's own connections."""
