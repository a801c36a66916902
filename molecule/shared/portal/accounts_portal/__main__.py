"""``python -m accounts_portal``."""

from accounts_portal.server import main

main()
