-- The orders service's tables. Run once a cold start, by the spec's `seed`.

CREATE TABLE IF NOT EXISTS orders (
    id         BIGINT        NOT NULL AUTO_INCREMENT,
    uuid       CHAR(36)      NOT NULL,
    customer   VARCHAR(64)   NOT NULL,
    city_id    INT           NOT NULL,
    city_name  VARCHAR(128)  NOT NULL,
    price      DECIMAL(12,2) NOT NULL,
    status     VARCHAR(16)   NOT NULL DEFAULT 'open',
    created_at DATETIME(6)   NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY orders_uuid (uuid),
    KEY orders_customer_created (customer, created_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS offers (
    id         BIGINT        NOT NULL AUTO_INCREMENT,
    order_uuid CHAR(36)      NOT NULL,
    amount     DECIMAL(12,2) NOT NULL,
    state      VARCHAR(16)   NOT NULL DEFAULT 'proposed',
    created_at DATETIME(6)   NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY offers_order (order_uuid),
    KEY offers_state (state)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT INTO orders (id, uuid, customer, city_id, city_name, price, status, created_at) VALUES
    (1, '6f1c1a52-6d0e-4a53-9a0b-0c5d6a1f0001', 'user-1', 169, 'Almaty', 4200.00, 'open', '2024-03-01 08:30:00.000000'),
    (2, '6f1c1a52-6d0e-4a53-9a0b-0c5d6a1f0002', 'user-1', 169, 'Almaty', 3900.50, 'done', '2024-03-02 17:05:12.250000'),
    (3, '6f1c1a52-6d0e-4a53-9a0b-0c5d6a1f0003', 'user-2', 31, 'Astana', 7000.00, 'open', '2024-03-03 21:44:59.999999')
ON DUPLICATE KEY UPDATE status = VALUES(status);

INSERT INTO offers (id, order_uuid, amount, state, created_at) VALUES
    (1, '6f1c1a52-6d0e-4a53-9a0b-0c5d6a1f0001', 4200.00, 'proposed', '2024-03-01 08:30:00.000000'),
    (2, '6f1c1a52-6d0e-4a53-9a0b-0c5d6a1f0002', 3900.50, 'accepted', '2024-03-02 17:05:12.250000'),
    (3, '6f1c1a52-6d0e-4a53-9a0b-0c5d6a1f0003', 7000.00, 'proposed', '2024-03-03 21:44:59.999999')
ON DUPLICATE KEY UPDATE state = VALUES(state);
