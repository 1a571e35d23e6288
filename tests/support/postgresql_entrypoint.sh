# Create the cluster on the first start, then run the server in the foreground.
set -euo pipefail
binaries=$(echo /usr/lib/postgresql/*/bin)
as_postgres=(setpriv --reuid postgres --regid postgres --init-groups)
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  chown postgres: "$PGDATA"
  password_file=$(mktemp)
  printf '%s' "$POSTGRES_PASSWORD" >"$password_file"
  chown postgres: "$password_file"
  "${as_postgres[@]}" "$binaries/initdb" --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile "$password_file" \
    --auth scram-sha-256 --encoding UTF8 --no-locale >/dev/null
  rm "$password_file"
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" |
    "${as_postgres[@]}" "$binaries/postgres" --single -D "$PGDATA" postgres >/dev/null
fi
exec "${as_postgres[@]}" "$binaries/postgres" -D "$PGDATA" -c 'listen_addresses=*'
