import jakarta.persistence.CascadeType;
import jakarta.persistence.Column;
import jakarta.persistence.Entity;
import jakarta.persistence.EnumType;
import jakarta.persistence.Enumerated;
import jakarta.persistence.GeneratedValue;
import jakarta.persistence.GenerationType;
import jakarta.persistence.Id;
import jakarta.persistence.LockModeType;
import jakarta.persistence.ManyToOne;
import jakarta.persistence.OneToMany;
import jakarta.persistence.Table;
import jakarta.persistence.Version;
import java.math.BigDecimal;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import org.hibernate.SessionFactory;
import org.hibernate.cfg.Configuration;

/** Hibernate 6: schema update (twice), entities of both ways to make ids, locks, a duplicate. */
class Orm {
    enum Kind { PLAIN, ADMIN }

    @Entity(name = "Owner")
    @Table(name = "hib_owners")
    static class Owner {
        @Id @GeneratedValue(strategy = GenerationType.IDENTITY) Long id;
        @Column(nullable = false, unique = true, length = 40) String name;
        @Enumerated(EnumType.STRING) Kind kind = Kind.PLAIN;
        boolean active = true;
        Instant made = Instant.parse("2024-05-06T07:08:09Z");
        @Version int version;
        @OneToMany(mappedBy = "owner", cascade = CascadeType.ALL, orphanRemoval = true) List<Item> items = new ArrayList<>();
    }

    @Entity(name = "Item")
    @Table(name = "hib_items")
    static class Item {
        @Id UUID id = new UUID(0x1234567812344678L, 0x8234567812345678L);
        @Column(precision = 10, scale = 2) BigDecimal price = new BigDecimal("12.50");
        @ManyToOne(optional = false) Owner owner;
    }

    @Entity(name = "Counted")
    @Table(name = "hib_counted")
    static class Counted {
        @Id @GeneratedValue(strategy = GenerationType.SEQUENCE) Long id;
        @Column(columnDefinition = "text") String note;
    }

    static SessionFactory open(String how) {
        return new Configuration()
            .addAnnotatedClass(Owner.class).addAnnotatedClass(Item.class).addAnnotatedClass(Counted.class)
            .setProperty("hibernate.connection.url", Jdbc.URL + "?allowPublicKeyRetrieval=true")
            .setProperty("hibernate.connection.username", "root")
            .setProperty("hibernate.connection.password", "test")
            .setProperty("hibernate.hbm2ddl.auto", how)
            .setProperty("hibernate.hbm2ddl.halt_on_error", "true")
            .buildSessionFactory();
    }

    static void run() {
        try (SessionFactory factory = open("update")) {
            Long id = factory.fromTransaction(s -> {
                Owner ann = new Owner();
                ann.name = "ann";
                Item item = new Item();
                item.owner = ann;
                ann.items.add(item);
                s.persist(ann);
                Counted counted = new Counted();
                counted.note = "x";
                s.persist(counted);
                return ann.id;
            });
            factory.inTransaction(s -> {
                Owner ann = s.find(Owner.class, id, LockModeType.PESSIMISTIC_WRITE);
                Serve.check(ann.active && ann.kind == Kind.PLAIN && ann.made.equals(Instant.parse("2024-05-06T07:08:09Z")), "ann");
                Serve.equal(ann.items.get(0).price, new BigDecimal("12.50"));
                Serve.equal(ann.items.get(0).id, new Item().id);
                ann.kind = Kind.ADMIN;
            });
            factory.inTransaction(s -> {
                Serve.equal(s.createQuery("select sum(i.price) from Item i join i.owner o where o.kind = :k and o.version = 1", BigDecimal.class)
                    .setParameter("k", Kind.ADMIN).getSingleResult(), new BigDecimal("12.50"));
                Serve.equal(s.createQuery("select o from Owner o where lower(o.name) like 'a%' order by o.id", Owner.class)
                    .setMaxResults(5).setFirstResult(0).getResultList().size(), 1);
                Serve.equal(s.createMutationQuery("update Item set price = price + 1").executeUpdate(), 1);
            });
            try {
                factory.inTransaction(s -> {
                    Owner again = new Owner();
                    again.name = "ann";
                    s.persist(again);
                });
                throw new AssertionError("a duplicate was taken");
            } catch (org.hibernate.exception.ConstraintViolationException e) {
                Serve.equal(e.getSQLException().getErrorCode(), 1062);
            }
            factory.inTransaction(s -> s.remove(s.find(Owner.class, id)));
        }
        open("update").close();
        open("validate").close();
    }
}
