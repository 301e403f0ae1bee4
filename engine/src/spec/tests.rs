//! Whole specs: the chapter's, and one for each mistake.

use super::*;
use crate::addresses::AddressBook;
use crate::plan::Plan;
use std::path::Path;

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn load_chapter() -> Plan {
    let addresses = AddressBook::isolated();
    let options = LoadOptions { addresses: &addresses, env: Vec::new(), binaries: Vec::new(), files: None };
    load(&repository("specs/orders/faultbox.star"), &options).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_chapter_loads_into_its_27_cells() {
    let plan = load_chapter();
    let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
    let mut expected = vec!["test_health_endpoint".to_owned(), "test_jwt_protected_endpoint".to_owned(), "test_create_order".to_owned()];
    for scenario in ["order_creation", "order_listing", "health_probe", "login_flow"] {
        for fault in ["db_down", "db_slow", "db_write_fail", "cache_down", "bus_down", "users_unavailable"] {
            expected.push(format!("matrix_{scenario}_{fault}"));
        }
    }
    assert_eq!(names, expected);
    println!("{}", describe(&plan, &(0..27).collect::<Vec<_>>()));
}
