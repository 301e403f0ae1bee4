CREATE TABLE parent (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) NOT NULL);
CREATE TABLE child (
    id INT NOT NULL PRIMARY KEY,
    parent_id INT NOT NULL,
    doubled INT GENERATED ALWAYS AS (id * 2) STORED,
    raw VARBINARY(8),
    FOREIGN KEY (parent_id) REFERENCES parent (id)
);
CREATE TABLE empty_one (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY);
INSERT INTO parent (name) VALUES ('one'), ('two'), ('three');
DELETE FROM parent WHERE name = 'three';
INSERT INTO child (id, parent_id, raw) VALUES (1, 1, X'00FF27'), (2, 2, NULL);
