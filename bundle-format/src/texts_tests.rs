//! Goal: every text reads back as it was, and texts of one shape share a template. Method: texts by columns
//! of one, some made of what the finder of holes looks for.

use super::*;
use crate::Value;
use crate::template::Templates;
use proptest::prelude::*;

/// Puts texts into one column; the templates' number, and what reads back.
fn through(texts: &[Vec<u8>], sort: Sort) -> (usize, Vec<Vec<u8>>) {
    let (mut made, mut column, mut uses, mut words) = (Texts::default(), Vec::new(), Vec::new(), Vec::new());
    let mut order = Vec::new();
    for text in texts {
        let put = made.put(text, sort);
        let place = order.iter().position(|number| *number == put.template).unwrap_or(order.len());
        if place == order.len() {
            order.push(put.template);
        }
        varint::put(&mut column, place as u64);
        if put.holed {
            uses.push((put.template, words.len() as u32));
            words.extend_from_slice(&made.words);
        }
    }
    order.iter().fold(0, |expected, number| {
        varint::put(&mut column, varint::zigzag(i64::from(*number) - expected));
        i64::from(*number) + 1
    });
    made.write_holes(&mut uses, &words, &mut column);
    let mut templates = Vec::new();
    made.write(&mut templates);
    let mut read = Templates::read(&templates).unwrap();
    let mut reader = varint::Reader::of(&column);
    let back = read.take(texts.len(), &mut reader).unwrap();
    assert!(reader.is_empty(), "something is left over");
    (read.templates.len(), back.into_iter().map(|(_, text)| text).collect())
}

#[test]
fn texts_of_one_shape_share_a_template() {
    let hash = |n: u64| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let shapes: [&dyn Fn(u64) -> String; 7] = [
        &|n| format!("GET /orders/{}", 100 + n),
        &|n| format!("took {}.{:03}s of user{}", 10 + n, n, 1000 + n),
        &|n| format!("2026-11-{:02}T02:{:02}:59Z", 10 + n, n),
        &|n| {
            format!("00-{:032x}-{:016x}-01", 0xa1b2_c3d4_e5f6_a7b8 + u128::from(n), 0xdead_beef_0000_000a + n)
        },
        &|n| format!("id=7ad72518-1111-4222-8333-{:012x}", n + 0xabc),
        &|n| format!("127.0.0.1:{}", 32_768 + n),
        &|n| {
            format!(
                "etag \"{:0>8}\"",
                hash(n).get(..8).unwrap_or("0a1b2c3d").replace(|c: char| c.is_alphabetic(), "1a")
            )
        },
    ];
    for shape in &shapes[..6] {
        let texts: Vec<Vec<u8>> = (0..50).map(|n| shape(n).into_bytes()).collect();
        let (templates, back) = through(&texts, Sort::Text);
        assert_eq!(back, texts);
        assert!(templates <= 3, "{templates} templates for {}", shape(0));
    }
    let texts: Vec<Vec<u8>> = (0..50).map(|n| shapes[6](n).into_bytes()).collect();
    assert_eq!(through(&texts, Sort::Text).1, texts);
}

#[test]
fn values_of_one_shape_share_a_template() {
    let value = |n: i64| {
        let row = vec![Value::Int(n * 1000 - 77), Value::text(format!("user-{}", 10 + n)), Value::Float(0.5)];
        Value::map([
            ("sql", Value::text(format!("SELECT {} FROM t", 1000 + n))),
            ("rows", Value::List(vec![Value::List(row)])),
            ("raw", Value::Bytes(vec![0xff, 0xf8, b'1', b'2', 0xfd])),
            ("id", Value::UInt(u64::MAX).volatile()),
        ])
    };
    let texts: Vec<Vec<u8>> = (0..50).map(|n| value(n).encode()).collect();
    let (templates, back) = through(&texts, Sort::Value);
    assert_eq!(back, texts);
    assert!(templates <= 3, "{templates} templates");
}

#[test]
fn what_is_no_template_is_refused() {
    let bad: [&[u8]; 12] = [
        &[op::FIXED, 0],
        &[op::FIXED, 20],
        &[op::FIXED],
        &[op::HEX, 17],
        &[op::HEX],
        &[op::END],
        &[op::BEGIN],
        &[op::BEGIN, op::BEGIN, op::END, op::END],
        &[op::ESCAPE],
        &[op::ESCAPE, b'a'],
        &[b'a', op::BEGIN, b'b'],
        &[op::BEGIN, op::END, op::END],
    ];
    for template in bad {
        let mut list = vec![template.len() as u8];
        list.extend_from_slice(template);
        assert!(Templates::read(&list).is_err(), "{template:x?}");
    }
    assert!(Templates::read(&[5, b'a']).is_err(), "longer than what is there");
    // A value that does not fit its hole.
    for (template, value) in [(&[2, op::FIXED, 2], &[0, 0, 100][..]), (&[2, op::HEX, 3], &[0, 0, 0x10, 0])] {
        let mut templates = Templates::read(template).unwrap();
        assert!(templates.take(1, &mut varint::Reader::of(value)).is_err());
    }
}

#[test]
fn small_columns_cannot_be_put_together_to_much() {
    let mut list = Vec::new();
    varint::put(&mut list, 1 << 20);
    list.resize(list.len() + (1 << 20), b'a');
    let mut templates = Templates::read(&list).unwrap();
    let refused = templates.take(65, &mut varint::Reader::of(&[0; 66])).unwrap_err();
    assert!(refused.contains("more bytes"), "{refused}");
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[0-9]{1,22}".prop_map(String::into_bytes),
        "[0-9a-f]{1,40}".prop_map(String::into_bytes),
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(String::into_bytes),
        "[a-zA-Z /:.-]{0,6}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_texts_read_back(texts in proptest::collection::vec(words(), 0..40), values in any::<bool>()) {
        let sort = if values { Sort::Value } else { Sort::Text };
        prop_assert_eq!(through(&texts, sort).1, texts);
    }

    #[test]
    fn any_values_read_back(parts in proptest::collection::vec((words(), any::<i64>(), 0i64..20), 0..20)) {
        let value = |(text, large, small): &(Vec<u8>, i64, i64)| {
            let items = vec![Value::text_or_bytes(text), Value::Int(*large), Value::Int(*small)];
            Value::map([("a", Value::List(items)), ("b", Value::Bytes(text.clone()).volatile())]).encode()
        };
        let texts: Vec<Vec<u8>> = parts.iter().map(value).collect();
        prop_assert_eq!(through(&texts, Sort::Value).1, texts);
    }

    #[test]
    fn any_columns_are_answered(list in proptest::collection::vec(any::<u8>(), 0..60), column in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(mut templates) = Templates::read(&list) {
            let _ = templates.take(5, &mut varint::Reader::of(&column));
        }
    }
}
