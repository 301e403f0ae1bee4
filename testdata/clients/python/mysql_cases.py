"""MySQL: PyMySQL, Connector/Python (both implementations), SQLAlchemy, Django's ORM."""

import datetime
import decimal
import os

import mysql.connector
import pymysql
import sqlalchemy as sa
from sqlalchemy import orm

HOST, PORT = os.environ["DB"].rsplit(":", 1)
WHERE = dict(host=HOST, port=int(PORT), user="root", password="test", database="appdb")
WHEN = datetime.datetime(2024, 5, 6, 7, 8, 9)
DAY = datetime.date(2024, 5, 6)
TABLE = (
    "CREATE TABLE {} (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) NOT NULL UNIQUE,"
    " price DECIMAL(10,2), ratio DOUBLE, at DATETIME(6), day DATE, raw VARBINARY(16), doc JSON,"
    " flag TINYINT(1) NOT NULL DEFAULT 0, note TEXT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
)
INSERT = "INSERT INTO {} (name, price, ratio, at, day, raw, doc, flag) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"


def row(name):
    return (name, decimal.Decimal("12.50"), 0.25, WHEN, DAY, b"\x00\xff'\\", '{"a": 1}', True)


def case_pymysql():
    with pymysql.connect(**WHERE) as db:
        with db.cursor() as c:
            c.execute(TABLE.format("py_items"))
            assert c.execute(INSERT.format("py_items"), row("one")) == 1
            assert c.lastrowid == 1
            assert c.executemany(INSERT.format("py_items"), [row("two"), row("drei ß 🦀")]) == 2
            c.execute("SELECT id, name, price, ratio, at, day, raw, flag FROM py_items ORDER BY id")
            rows = c.fetchall()
            assert rows[0] == (1, "one", decimal.Decimal("12.50"), 0.25, WHEN, DAY, b"\x00\xff'\\", 1), rows[0]
            assert rows[2][1] == "drei ß 🦀", rows[2]
        db.commit()
        with db.cursor(pymysql.cursors.DictCursor) as c:
            try:
                c.execute(INSERT.format("py_items"), row("one"))
                raise AssertionError("a duplicate was taken")
            except pymysql.err.IntegrityError as e:
                assert e.args[0] == 1062, e
            c.execute("UPDATE py_items SET price = price + 1 WHERE name LIKE %s", ("%o%",))
            assert c.rowcount == 2, c.rowcount
        db.rollback()
        with db.cursor(pymysql.cursors.SSDictCursor) as c:
            c.execute("SELECT SUM(price) AS s, COUNT(*) AS n FROM py_items")
            assert c.fetchone() == {"s": decimal.Decimal("37.50"), "n": 3}
        db.ping()
        try:
            with db.cursor() as c:
                c.callproc("nothing", (1,))
            raise AssertionError("a procedure ran")
        except pymysql.err.MySQLError as e:
            assert e.args[0] in (1235, 1305), e


def connector(pure):
    table = "con_pure" if pure else "con_c"
    with mysql.connector.connect(use_pure=pure, **WHERE) as db:
        c = db.cursor()
        c.execute(TABLE.format(table))
        c.execute(INSERT.format(table), row("one"))
        assert c.lastrowid == 1
        c.executemany(INSERT.format(table), [row("two"), row("three")])
        assert c.rowcount == 2
        db.commit()
        c = db.cursor(prepared=True)
        for name in ("one", "two"):
            c.execute(f"SELECT id, name, price, at, day, flag FROM {table} WHERE name = %s", (name,))
            (got,) = c.fetchall()
            assert got[1:] == (name, decimal.Decimal("12.50"), WHEN, DAY, 1), got
        c.execute(INSERT.format(table), row("four"))
        assert c.lastrowid == 4, c.lastrowid
        db.rollback()
        c = db.cursor(dictionary=True, buffered=True)
        c.execute(f"SELECT COUNT(*) AS n FROM {table}")
        assert c.fetchall() == [{"n": 3}]
        db.rollback()
        db.start_transaction(isolation_level="READ COMMITTED")
        c.execute(f"DELETE FROM {table}")
        assert c.rowcount == 3
        db.rollback()
        try:
            c.execute("SELECT * FROM no_such_table")
            raise AssertionError("an unknown table was read")
        except mysql.connector.ProgrammingError as e:
            assert e.errno == 1146, e
        assert db.is_connected()
        db.cmd_reset_connection()


def case_connector_pure():
    connector(True)


def case_connector_c():
    connector(False)


class Base(orm.DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "sa_users"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
    kind: orm.Mapped[str] = orm.mapped_column(sa.Enum("plain", "admin", name="kind"), default="plain")
    made: orm.Mapped[datetime.datetime] = orm.mapped_column(server_default=sa.func.now())
    orders: orm.Mapped[list["Order"]] = orm.relationship(back_populates="user", cascade="all, delete-orphan", order_by="Order.total.desc()")


class Order(Base):
    __tablename__ = "sa_orders"
    __table_args__ = (sa.Index("by_user", "user_id", "total"),)
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    user_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("sa_users.id", ondelete="CASCADE"))
    total: orm.Mapped[decimal.Decimal] = orm.mapped_column(sa.Numeric(10, 2))
    paid: orm.Mapped[bool] = orm.mapped_column(default=False)
    doc: orm.Mapped[dict] = orm.mapped_column(sa.JSON, nullable=True)
    user: orm.Mapped[User] = orm.relationship(back_populates="orders")


def sqlalchemy(url):
    engine = sa.create_engine(url, pool_pre_ping=True)
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # finds everything there
    with orm.Session(engine) as s:
        ann, bob = User(name="ann"), User(name="bob", kind="admin")
        ann.orders = [Order(total="10.50", doc={"a": [1, 2]}), Order(total="2", paid=True)]
        s.add_all([ann, bob])
        s.commit()
        assert ann.made is not None and ann.kind == "plain"
        with s.begin_nested():
            ann.name = "anna"
        s.commit()
        q = (
            sa.select(User.name, sa.func.sum(Order.total), sa.func.count())
            .join(User.orders)
            .group_by(User.name)
            .having(sa.func.count() > 1)
        )
        assert s.execute(q).all() == [("anna", decimal.Decimal("12.50"), 2)]
        got = s.scalars(sa.select(User).options(orm.selectinload(User.orders)).order_by(User.id)).all()
        assert [len(u.orders) for u in got] == [2, 0]
        assert got[0].orders[0].doc == {"a": [1, 2]} and got[0].orders[1].paid is True
        got = s.scalars(sa.select(User).options(orm.joinedload(User.orders))).unique().all()
        assert len(got) == 2
        locked = s.scalars(sa.select(Order).where(Order.paid.is_(False)).with_for_update()).one()
        locked.paid = True
        s.flush()
        s.rollback()
        try:
            s.add(User(name="bob"))
            s.commit()
            raise AssertionError("a duplicate was taken")
        except sa.exc.IntegrityError:
            s.rollback()
        s.delete(got[0])
        s.commit()
        assert s.scalar(sa.select(sa.func.count()).select_from(Order)) == 0
        assert s.scalar(sa.select(sa.exists().where(User.name == "bob"))) == 1
    seen = sa.inspect(engine)
    assert {"sa_users", "sa_orders"} <= set(seen.get_table_names())
    assert [c["name"] for c in seen.get_columns("sa_orders")] == ["id", "user_id", "total", "paid", "doc"]
    assert seen.get_pk_constraint("sa_users")["constrained_columns"] == ["id"]
    (key,) = seen.get_foreign_keys("sa_orders")
    assert key["referred_table"] == "sa_users" and key["options"].get("ondelete") == "CASCADE", key
    assert [i["name"] for i in seen.get_indexes("sa_orders")] == ["by_user"], seen.get_indexes("sa_orders")
    assert seen.get_unique_constraints("sa_users")[0]["column_names"] == ["name"]
    meta = sa.MetaData()
    meta.reflect(engine)
    kind = meta.tables["sa_users"].c.kind.type
    assert list(kind.enums) == ["plain", "admin"], kind
    Base.metadata.drop_all(engine)
    assert not sa.inspect(engine).has_table("sa_users")
    engine.dispose()


def case_sqlalchemy_pymysql():
    sqlalchemy(f"mysql+pymysql://root:test@{HOST}:{PORT}/appdb?charset=utf8mb4")


def case_sqlalchemy_connector():
    sqlalchemy(f"mysql+mysqlconnector://root:test@{HOST}:{PORT}/appdb")


def case_django():
    import pymysql as driver

    driver.version_info = (2, 2, 4, "final", 0)  # Django asks for mysqlclient's version
    driver.install_as_MySQLdb()
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.mysql",
                    "NAME": "appdb",
                    "USER": "root",
                    "PASSWORD": "test",
                    "HOST": HOST,
                    "PORT": PORT,
                }
            },
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        )
        django.setup()
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command
    from django.db import connection, transaction
    from django.db.models import Count, Q

    call_command("migrate", verbosity=0)
    call_command("migrate", verbosity=0)  # nothing left to do
    ann = User.objects.create_user("ann", email="ann@example.com", password="x")
    User.objects.bulk_create([User(username=f"u{i}") for i in range(3)])
    staff, made = Group.objects.get_or_create(name="staff")
    assert made
    ann.groups.add(staff)
    assert list(User.objects.filter(groups__name="staff").values_list("username", flat=True)) == ["ann"]
    assert User.objects.filter(Q(username__startswith="u") | Q(email__icontains="ANN@")).count() == 4
    assert User.objects.annotate(n=Count("groups")).order_by("-n").first().n == 1
    with transaction.atomic():
        locked = User.objects.select_for_update().get(username="u1")
        locked.first_name = "Uno"
        locked.save(update_fields=["first_name"])
    try:
        with transaction.atomic():
            User.objects.create(username="ann")
        raise AssertionError("a duplicate was taken")
    except django.db.utils.IntegrityError:
        pass
    assert User.objects.update_or_create(username="u2", defaults={"last_name": "Z"})[1] is False
    assert User.objects.filter(username__in=["u0", "u1"]).delete()[0] == 2
    assert "auth_user" in connection.introspection.table_names()
    with connection.cursor() as c:
        keys = connection.introspection.get_constraints(c, "auth_user_groups")
    assert any(k["foreign_key"] == ("auth_user", "id") for k in keys.values()), keys
    connection.close()
