"""What has been played, on the device: rows, how they become transitions, and priorities."""
