"""The gateway's pages for browsers: sign-in by the Hub, a user's clusters, and who may see a dashboard."""
