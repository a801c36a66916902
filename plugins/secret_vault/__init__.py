"""Make, set and rotate the secrets of an inventory, in the file that ansible-vault keeps for it.

`names` knows which secrets an inventory uses, `kinds` how each is made, `vault` reads and writes the encrypted file.
"""
