-- The ODS begins empty. Whoever builds it may make schemas, and owns what it makes.

CREATE ROLE catchment LOGIN;
GRANT CREATE ON DATABASE ods TO catchment;
