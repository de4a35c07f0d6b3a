"""What requests to a teacher cost: pure arithmetic, before anything is sent."""
