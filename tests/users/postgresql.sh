# shellcheck shell=bash
# PostgreSQL, installed: the package has made a cluster for a user of its own. Functions, called in containers that come
# and go: first and ask in one, again in the next.

version=$(ls /etc/postgresql)
data=/var/lib/postgresql/$version/main

# Usage: query USER SQL [OPTIONS OF psql]
query() {
    echo "$2" | su "$1" -c "psql -X -q -tA -v ON_ERROR_STOP=1 -d postgres ${3-}" 2>&1 ||
        echo "psql: $?"
}
cluster() { pg_ctlcluster "$version" main "$1" 2>&1 || echo "pg_ctlcluster: $?"; }
# Some files come and go when the server finds the time.
owners() {
    list /var/lib/postgresql | grep -v -E 'pg_internal.init|pgstat|/pg_wal/0|/[0-9]+_(fsm|vm) '
    list /etc/postgresql
    list /run/postgresql
    list /var/log/postgresql
}

first() {
    make_users
    owners
    # Nobody else on the host's network should be in the way.
    pg_conftool "$version" main set listen_addresses ''
    cluster start
    pg_lsclusters -h | tr -s ' '
}

ask() {
    owners
    processes postgres: | cut -d' ' -f1 | sort -u
    processes /usr/lib/postgresql
    query postgres 'select 1'
    su postgres -c 'createuser alice; createdb -O alice hers'
    query alice 'select current_user, session_user'
    # The server asks the kernel who its peer is.
    query postgres 'select 1' '-U alice'
    query alice 'select 1' '-U postgres'
    query bob 'select 1' '-U alice'
    query root 'select 1' '-U alice'
    query root 'select 1'
    query alice 'create table kept (word text); insert into kept select n from generate_series (1, 10000) n' '-d hers'
    query postgres "copy (select 1) to '/tmp/by-the-server'"
    stat -c '%U:%G %a' /tmp/by-the-server
    "/usr/lib/postgresql/$version/bin/postgres" -D "$data" 2>&1 | head -n1
}

again() {
    cluster start
    query alice 'select count(*) from kept' '-d hers'
    query postgres 'select usename from pg_user order by 1'
    cluster stop
    processes postgres:
    # What is not its user's own, and what others can reach, the server does not use.
    chown alice "$data"
    cluster start
    chown postgres "$data"
    chmod 777 "$data"
    cluster start | grep -v -E '^[0-9]{4}-'
    chmod 700 "$data"
    su postgres -c "pg_ctlcluster --skip-systemctl-redirect $version main start"
    query postgres 'select 2'
    owners
    pg_dropcluster --stop "$version" main
    list /var/lib/postgresql
    list /etc/postgresql
}
