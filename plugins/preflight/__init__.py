"""Read an inventory with Ansible's own code, touch no host, and say all that is wrong with it.

`roles` knows what the roles ask for and which hosts a playbook gives them to, `values` what an
inventory answers, `checks` what must be true of the answers; `findings` is what comes out.
"""
