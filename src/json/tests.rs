//! The canonical form against RFC 8785's examples, against values that are known, and on hostile texts.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

fn form(text: &str) -> Option<String> {
    let form = canonical(text.as_bytes())?;
    Some(String::from_utf8(form.into_owned()).unwrap())
}

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(form(text).as_deref(), Some(want), "{text}");
    assert_eq!(form(want).as_deref(), Some(want), "it is its own form");
}

#[test]
fn the_example_of_rfc_8785() {
    let text = r#"{
      "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"#;
    let want = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
    check(text, want);
    // There, the first number has a digit more than the double that is meant; here, it is what it says.
    check("333333333.33333329", "333333333.33333329");
}

#[test]
fn members_are_sorted_by_utf_16() {
    let text = r#"{
      "\u20ac": "Euro Sign",
      "\r": "Carriage Return",
      "\ufb33": "Hebrew Letter Dalet With Dagesh",
      "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face",
      "\u0080": "Control",
      "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    let order = [
        "\"\\r\"",
        "\"1\"",
        "\"\u{80}\"",
        "\"ö\"",
        "\"€\"",
        "\"😀\"",
        "\"\u{fb33}\"",
    ];
    let form = form(text).unwrap();
    let places: Vec<_> = order.iter().map(|name| form.find(name).unwrap()).collect();
    assert!(places.is_sorted(), "{form}");
    check(
        r#"{"b":{"d":[{}],"c":{}},"a":[{"z":1,"y":[]},{"x":{"w":2,"v":3}},4]}"#,
        r#"{"a":[{"y":[],"z":1},{"x":{"v":3,"w":2}},4],"b":{"c":{},"d":[{}]}}"#,
    );
    check(r#"{"a":1,"":2,"\u0061a":3}"#, r#"{"":2,"a":1,"aa":3}"#);
    check(
        r#"{"\ud83d":1,"\ud83d\ude00":2,"\ud83da":3,"\ue000":4}"#,
        "{\"\\ud83d\":1,\"\\ud83da\":3,\"😀\":2,\"\u{e000}\":4}",
    );
}

#[test]
fn of_members_with_one_name_the_last_counts() {
    check(r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#);
    check(
        r#"{"a":{"x":{"y":1}},"\u0061":{},"c":{"e":1,"d":2}}"#,
        r#"{"a":{},"c":{"d":2,"e":1}}"#,
    );
    check(
        r#"[{"a":{"b":{}},"a":{"d":1,"c":{"z":0}}},{"f":1,"e":2}]"#,
        r#"[{"a":{"c":{"z":0},"d":1}},{"e":2,"f":1}]"#,
    );
}

#[test]
fn what_is_canonical_is_not_copied() {
    let is_copied = |text: &str| matches!(canonical(text.as_bytes()), Some(Cow::Owned(_)));
    for text in [
        "17",
        "-5",
        "true",
        "\"a\"",
        "[]",
        r#"{"a":[1,{"b":{},"c":"x"}],"d":2}"#,
    ] {
        assert!(!is_copied(text), "{text}");
    }
    for text in [
        " 17",
        "-0",
        "1.0",
        r#""\u0061""#,
        "[ ]",
        r#"{"b":1,"a":1}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"\u0061":1}"#,
    ] {
        assert!(is_copied(text), "{text}");
    }
}

#[test]
fn strings_are_escaped_only_where_they_must_be() {
    check(
        r#""\u0000\u0008\u0009\u000A\u000b\u000C\u000d\u001F \u007f""#,
        "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f \u{7f}\"",
    );
    check(r#""\/\"\\\u2028\u00e9""#, "\"/\\\"\\\\\u{2028}é\"");
    check(r#""\uD83D\uDE00😀""#, "\"😀😀\"");
    check(r#""\uD83D""#, r#""\ud83d""#);
    check(r#""\uDE00\uD83D""#, r#""\ude00\ud83d""#);
    check(r#""\uD83D\uD83D\uDE00x""#, r#""\ud83d😀x""#);
    check(r#""\uD83D\n\uDE00""#, r#""\ud83d\n\ude00""#);
    assert_eq!(unescaped(r#""a\u0062\"\\""#).as_deref(), Some("ab\"\\"));
    assert_eq!(unescaped(r#""\ud83d""#), None);
}

/// RFC 8785's appendix B, but for what is no number.
#[test]
fn doubles_in_their_shortest_form_are_what_rfc_8785_says() {
    for text in [
        "5e-324",
        "-5e-324",
        "1.7976931348623157e+308",
        "-1.7976931348623157e+308",
        "9007199254740992",
        "-9007199254740992",
        "295147905179352830000",
        "9.999999999999997e+22",
        "1e+23",
        "1.0000000000000001e+23",
        "999999999999999700000",
        "999999999999999900000",
        "1e+21",
        "9.999999999999997e-7",
        "0.000001",
        "333333333.3333332",
        "333333333.33333325",
        "333333333.3333333",
        "333333333.3333334",
        "333333333.33333343",
        "-0.0000033333333333333333",
        "1424953923781206.2",
    ] {
        check(text, text);
    }
    check("-0", "0");
}

#[test]
fn numbers_are_their_exact_value() {
    for (want, spellings) in [
        (
            "1",
            &[
                "1",
                "1.0",
                "1e0",
                "10e-1",
                "0.1e1",
                "1E+0",
                "1.000e-0",
                "100e-0002",
            ][..],
        ),
        (
            "0",
            &["0", "-0", "0.0", "-0.00e5", "0e999999999999999999999"],
        ),
        ("1.5", &["1.50", "15e-1", "0.15E1"]),
        ("-120", &["-120", "-1.2e2", "-12E1"]),
        ("0.000001", &["1e-6", "0.0000010"]),
        ("1.5e-7", &["0.00000015", "15e-8"]),
        (
            "100000000000000000000",
            &["1e20", "100000000000000000000.0"],
        ),
        ("1e+21", &["1e21", "1000000000000000000000", "1000e18"]),
        (
            "12345678901234567890123",
            &["12345678901234567890123", "1.2345678901234567890123e22"],
        ),
        (
            "123456789012345678901230",
            &["123456789012345678901230", "12345678901234567890123e1"],
        ),
        (
            "1.2345678901234567890125e+21",
            &["1234567890123456789012.5"],
        ),
        (
            "1.23456789012345678e+100",
            &["1.23456789012345678e100", "123456789012345678e83"],
        ),
        (
            "0.1000000000000000055",
            &["0.1000000000000000055", "1000000000000000055e-19"],
        ),
        (
            "1e+1000000000000000000000",
            &[
                "1e1000000000000000000000",
                "10e999999999999999999999",
                "0.001e1000000000000000000003",
                "1.000E+01000000000000000000000",
            ],
        ),
        (
            "1.2e-999999999999999999999",
            &[
                "1.2e-999999999999999999999",
                "12e-1000000000000000000000",
                "0.12e-999999999999999999998",
            ],
        ),
        (
            "1e+999999999999999999",
            &["1e999999999999999999", "10e999999999999999998"],
        ),
        (
            "1e+1000000000000000000",
            &["1e1000000000000000000", "10e999999999999999999"],
        ),
        (
            "1e-1000000000000000000",
            &["1e-1000000000000000000", "0.1e-999999999999999999"],
        ),
    ] {
        for text in spellings {
            check(text, want);
        }
    }
}

#[test]
fn numbers_that_are_one_double_are_two() {
    for (one, other) in [
        ("9007199254740993", "9007199254740992"),
        ("10000000000000000000000001", "10000000000000000000000002"),
        ("1e400", "2e400"),
        ("1e-400", "0"),
        ("1e999999999999999999999", "1e999999999999999999998"),
        ("0.1", "0.1000000000000000055"),
    ] {
        assert_ne!(form(one).unwrap(), form(other).unwrap());
    }
}

#[test]
fn the_grammar_is_kept_strictly() {
    for text in [
        "",
        " ",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e+",
        "1.e1",
        "0x1",
        "NaN",
        "Infinity",
        "nul",
        "truex",
        "true false",
        "True",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\t\"",
        "\"\n\"",
        "\"aaaaaaa\u{1}aaaaaaaaaaaaaaaa\"",
        "'a'",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{]",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1]",
        "{\"a\":1 \"b\":2}",
        "[]]",
        "{}{}",
        "1,",
        "1 ]",
        "\u{feff}1",
        "\u{a0}1",
        "[1]x",
        "/**/1",
    ] {
        assert!(canonical(text.as_bytes()).is_none(), "{text:?}");
        assert!(!is_text(text), "{text:?}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_err(),
            "{text:?}"
        );
    }
    assert!(canonical(b"\"\xff\"").is_none());
    assert!(
        canonical(b"\"\xed\xa0\x80\"").is_none(),
        "no surrogates but as escapes"
    );
    check(" \t\r\n[ 1 , { \"a\" : [ ] } ]\n", "[1,{\"a\":[]}]");
}

/// Texts at which recursion, quadratic time or memory beyond the text would show: it takes a debug build some
/// seconds at most.
#[test]
fn hostile_texts_are_like_any_others() {
    const LEN: usize = 1 << 20;
    let brackets = "[".repeat(LEN) + &"]".repeat(LEN);
    check(&brackets, &brackets);
    assert!(form(&"[".repeat(LEN)).is_none());
    let objects = LEN / 8;
    // Each has a member to be moved over all that is inside of it.
    let nested = "{\"b\":".repeat(objects) + "1" + &",\"a\":2}".repeat(objects);
    let want = "{\"a\":2,\"b\":".repeat(objects) + "1" + &"}".repeat(objects);
    check(&nested, &want);
    let one_name: Vec<_> = (0..LEN / 16)
        .map(|value| format!("\"a\":{value}"))
        .collect();
    check(
        &format!("{{{}}}", one_name.join(",")),
        &format!("{{\"a\":{}}}", LEN / 16 - 1),
    );
    let many: Vec<_> = (0..LEN / 16)
        .rev()
        .map(|name| format!("\"{name:08}\":0"))
        .collect();
    let sorted: Vec<_> = many.iter().rev().cloned().collect();
    check(
        &format!("{{{}}}", many.join(",")),
        &format!("{{{}}}", sorted.join(",")),
    );
    let long = "x".repeat(1_000);
    let alike: Vec<_> = (0..LEN / 1_000)
        .rev()
        .map(|end| format!("\"{long}{end:05}\":0"))
        .collect();
    let sorted: Vec<_> = alike.iter().rev().cloned().collect();
    check(
        &format!("{{{}}}", alike.join(",")),
        &format!("{{{}}}", sorted.join(",")),
    );
    let digits = "1234567890".repeat(LEN / 10);
    check(
        &format!("0.{digits}"),
        &format!("0.{}", digits.trim_end_matches('0')),
    );
    check(
        &format!("1e{}1", "9".repeat(LEN)),
        &format!("1e+{}1", "9".repeat(LEN)),
    );
    check(
        &format!("{}e-{LEN}", "1".to_owned() + &"0".repeat(LEN)),
        "1",
    );
    check(
        &format!("\"{}\"", r"\ud83d".repeat(LEN / 6)),
        &format!("\"{}\"", r"\ud83d".repeat(LEN / 6)),
    );
}

/// A value, written down without its spelling.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    Word(&'static str),
    /// Digits without zeros at the end, and the power of ten that they are multiplied with.
    Number(i64, i64),
    Text(Vec<u16>),
    Array(Vec<Known>),
    /// Sorted, each name once.
    Object(Vec<(Vec<u16>, Known)>),
}

fn text() -> impl Strategy<Value = Vec<u16>> {
    let unit = prop_oneof![
        4 => prop::sample::select(&b"ab\"\\/ \n\x01u"[..]).prop_map(u16::from),
        1 => prop::sample::select(&[0xe9, 0x20ac, 0xd83d, 0xde00, 0xd7ff, 0xe000, 0xfb33][..]),
    ];
    prop::collection::vec(unit, 0..5)
}

fn known() -> impl Strategy<Value = Known> {
    let number = (-10_000..10_000_i64, -8..8_i64).prop_map(|(mut digits, mut power)| {
        while digits != 0 && digits % 10 == 0 {
            digits /= 10;
            power += 1;
        }
        Known::Number(digits, if digits == 0 { 0 } else { power })
    });
    let leaf = prop_oneof![
        prop::sample::select(&["null", "true", "false"][..]).prop_map(Known::Word),
        number,
        text().prop_map(Known::Text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Known::Array),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|members| Known::Object(members.into_iter().collect())),
        ]
    })
}

/// Spells values by chance.
struct Speller(u64);

impl Speller {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn space(&mut self, out: &mut String) {
        for _ in 0..self.below(3) {
            out.push([' ', '\n', '\t', '\r'][self.below(4) as usize]);
        }
    }

    fn spell(&mut self, value: &Known, out: &mut String) {
        self.space(out);
        match value {
            Known::Word(word) => out.push_str(word),
            Known::Number(digits, power) => self.number(*digits, *power, out),
            Known::Text(units) => self.text(units, out),
            Known::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    self.spell(element, out);
                }
                self.space(out);
                out.push(']');
            }
            Known::Object(members) => {
                let mut order: Vec<_> = members.iter().collect();
                for at in (1..order.len()).rev() {
                    order.swap(at, self.below(at as u64 + 1) as usize);
                }
                // What is said of a name before it is said again does not count.
                if let Some((name, _)) = order.last().filter(|_| self.below(4) == 0) {
                    let before = Known::Word("null");
                    out.push('{');
                    self.member(name, &before, out);
                    out.push(',');
                } else {
                    out.push('{');
                }
                for (at, (name, value)) in order.into_iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    self.member(name, value, out);
                }
                self.space(out);
                out.push('}');
            }
        }
        self.space(out);
    }

    fn member(&mut self, name: &[u16], value: &Known, out: &mut String) {
        self.space(out);
        self.text(name, out);
        self.space(out);
        out.push(':');
        self.spell(value, out);
    }

    fn number(&mut self, digits: i64, power: i64, out: &mut String) {
        let places = power.unsigned_abs() as usize;
        let spelled = match self.below(3) {
            0 => format!("{digits}e{power}"),
            1 => format!("{digits}.00E{power:+}"),
            _ if digits == 0 => "-0".to_owned(),
            _ if power >= 0 => format!("{digits}{}", "0".repeat(places)),
            _ => {
                let sign = if digits < 0 { "-" } else { "" };
                let all = format!("{:010}", digits.unsigned_abs());
                let (whole, fraction) = all.split_at(all.len() - places);
                let whole = whole.trim_start_matches('0');
                let whole = if whole.is_empty() { "0" } else { whole };
                format!("{sign}{whole}.{fraction}")
            }
        };
        out.push_str(&spelled);
    }

    fn text(&mut self, units: &[u16], out: &mut String) {
        out.push('"');
        for point in char::decode_utf16(units.iter().copied()) {
            let escaped = match point {
                Ok('\n') if self.below(2) == 0 => r"\n".to_owned(),
                Ok('/') if self.below(2) == 0 => r"\/".to_owned(),
                Ok(plain @ (' '..='!' | '#'..='[' | ']'..)) if self.below(2) == 0 => {
                    plain.to_string()
                }
                Ok(point) => {
                    let units = point.encode_utf16(&mut [0; 2]).to_vec();
                    let escapes = units.iter().map(|unit| format!("\\u{unit:04X}"));
                    escapes.collect::<Vec<_>>().concat()
                }
                Err(lone) => format!("\\u{:04x}", lone.unpaired_surrogate()),
            };
            out.push_str(&escaped);
        }
        out.push('"');
    }
}

/// A value with all numbers as doubles, which is how serde tells them apart.
fn with_doubles(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() + 0.0),
        Value::Array(elements) => elements.into_iter().map(with_doubles).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            Value::Object(
                members
                    .map(|(name, value)| (name, with_doubles(value)))
                    .collect(),
            )
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn values_are_equal_if_and_only_if_their_forms_are(one in known(), other in known(), chance in any::<u64>()) {
        let mut speller = Speller(chance);
        let mut spelled = |value: &Known| {
            let mut text = String::new();
            speller.spell(value, &mut text);
            text
        };
        let texts = [spelled(&one), spelled(&one), spelled(&other)];
        let forms = texts.each_ref().map(|text| form(text).unwrap());
        prop_assert_eq!(&forms[0], &forms[1], "{:?}", texts);
        prop_assert_eq!(forms[0] == forms[2], one == other, "{:?}", texts);
        for (text, own) in texts.iter().zip(&forms) {
            let again = form(own).unwrap();
            prop_assert_eq!(&again, own);
            // serde_json takes no lone surrogates; what it reads, it reads alike in both.
            if let Ok(value) = serde_json::from_str(text) {
                let read = serde_json::from_str(own).unwrap();
                prop_assert_eq!(with_doubles(value), with_doubles(read), "{} {}", text, own);
            }
        }
    }

    #[test]
    fn what_is_no_text_is_none_to_serde_json_either(text in "[\\[\\]{}:, 0-2.e+\"au\\\\-]{0,12}|[\\x00-\\xff]{0,8}") {
        let read = serde_json::from_str::<serde::de::IgnoredAny>(&text);
        prop_assert_eq!(is_text(&text), read.is_ok(), "{:?}", text);
        prop_assert_eq!(canonical(text.as_bytes()).is_some(), read.is_ok());
    }
}
