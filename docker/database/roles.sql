-- Run once by the image of PostgreSQL, as its superuser, when the database is empty.
--
-- glora_search owns the database of the studies; glora_reader may look, which is enough for
-- optuna-dashboard: it has no log-in of its own, and whoever reaches it could delete studies.
-- The passwords come from the mounted secrets and are kept out of the server's log.
SET log_min_error_statement = panic;
SET log_statement = none;
\set search `sed -n 's/^password=//p' /run/secrets/database_search`
\set reader `sed -n 's/^password=//p' /run/secrets/database_reader`

CREATE ROLE glora_search LOGIN PASSWORD :'search';
CREATE ROLE glora_reader LOGIN PASSWORD :'reader';
CREATE DATABASE glora_search OWNER glora_search TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE glora_search FROM PUBLIC;
GRANT CONNECT ON DATABASE glora_search TO glora_reader;

\connect glora_search
ALTER SCHEMA public OWNER TO glora_search;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO glora_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE glora_search IN SCHEMA public
    GRANT SELECT ON TABLES TO glora_reader;
