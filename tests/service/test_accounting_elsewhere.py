"""SLURM's accounting is in a database of the site's, on a host that no role touches."""

import json

import pytest
import scenario
from bare_host import BARE, bare_host, changes, play

DATABASE = f"database.{scenario.site()['site_domain']}"
# What the site's own administrators do, as slurmdbd.conf(5) asks of them
OURS = """
CREATE DATABASE slurm_acct_db;
CREATE USER 'slurm'@'%' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'%';
"""
TABLES = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'slurm_acct_db'"
ELSEWHERE = {"slurm_database_host": DATABASE}


@pytest.fixture
def database():
    """A host of the site's with MariaDB, and slurmdbd's user in it."""
    with bare_host("database", "database", like="controller", aliases=(DATABASE,)) as host:
        host.check_output(
            "apt-get update -qq && apt-get install -y -qq --no-install-recommends mariadb-server >/dev/null"
            " && printf '[mariadbd]\nbind-address = 0.0.0.0\n' > /etc/mysql/mariadb.conf.d/99-site.cnf"
            " && systemctl restart mariadb"
        )
        password = scenario.secrets()["vault_slurm_database_password"]
        host.check_output("mariadb -e %s", OURS.format(password=password))
        yield host


@pytest.mark.long
def test_the_accounting_is_used_where_it_is_and_stays_there(database, key):
    with bare_host(BARE, "controller", like="controller") as controller:
        also = ("-e", json.dumps(ELSEWHERE))
        assert changes(play("site.yml", "controller", *also)) > 10
        assert controller.service("slurmdbd").is_running
        assert not controller.package("mariadb-server").is_installed
        (cluster,) = controller.check_output("sacctmgr -nP show cluster format=cluster").split()
        known = controller.check_output("sacctmgr -nP show associations cluster=%s format=account", cluster).split()
        assert len(known) > 0
        tables = int(database.check_output("mariadb -BNe %s", TABLES))
        assert tables > 20
        assert changes(play("site.yml", "controller", *also)) == 0

        # Its operators back it up; what else the controller has is in ours
        backup = play("playbooks/backup.yml", "controller", "-e", key, *also)
        assert backup.returncode == 0, backup.stdout[-5000:]
        assert controller.check_output("ls /var/backups/dask-service/*/") == "accounting.tar.gz.age"

        gone = play("playbooks/uninstall.yml", "controller", "-e", key, "-e", "uninstall=yes", *also)
        assert changes(gone) > 5
        assert not controller.package("slurmdbd").is_installed
        assert int(database.check_output("mariadb -BNe %s", TABLES)) == tables
