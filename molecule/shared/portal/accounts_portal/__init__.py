"""A stand-in for a site's accounts portal: categories, services, roles and grants, and who asks for them over HTTPS."""
