//! What a change leaves of a document, and what it makes of it.

use serde_json::json;

use super::*;

const TEXT: &str = "\
# The shop's engine
[engine]
name = \"one\" # never change it

# behind the shop
[[pool]]
name = \"web\"
algorithm = \"round-robin\" # fair

# the old one
[[pool.server]]
name = \"a\"
address = \"198.18.0.1:8001\" # rack 1
ratio = 1   # as strong as b

[[pool.server]]
name = \"b\"
address = \"198.18.0.1:8002\"

[[pool]]
name = \"other\"
server = [{ name = \"a\", address = \"198.18.0.1:8003\" }]
";

fn document() -> Document {
    Document::parse(TEXT).unwrap()
}

fn object(value: Json) -> Body {
    value.as_object().unwrap().clone()
}

fn pool(name: &str) -> Place {
    Place::Named("pool", name.to_owned())
}

fn server(pool: &str, server: &str) -> Place {
    Place::Server { pool: pool.to_owned(), server: server.to_owned() }
}

#[test]
fn a_patch_changes_its_keys_and_leaves_every_comment() {
    let mut document = document();
    document.patch(&server("web", "a"), object(json!({ "ratio": 5 }))).unwrap();
    assert_eq!(document.to_string(), TEXT.replace("ratio = 1   # as", "ratio = 5   # as"));
    document.patch(&server("web", "a"), object(json!({ "ratio": null, "state": "draining" }))).unwrap();
    let expected = TEXT.replace("ratio = 1   # as strong as b\n", "state = \"draining\"\n");
    assert_eq!(document.to_string(), expected);
}

#[test]
fn what_is_put_as_it_is_changes_nothing() {
    for place in [pool("web"), pool("other"), server("web", "b"), server("other", "a")] {
        let mut document = document();
        let found = document.find(&place).unwrap();
        assert_eq!(document.put(&place, found).unwrap(), Put::Replaced);
        assert_eq!(document.to_string(), TEXT);
    }
}

#[test]
fn a_new_server_stands_behind_the_others_of_its_pool() {
    let mut document = document();
    let new = object(json!({ "address": "198.18.0.1:8009" }));
    assert_eq!(document.put(&server("web", "c"), new.clone()).unwrap(), Put::Created);
    let expected = TEXT.replace("8002\"\n", "8002\"\n\n[[pool.server]]\nname = \"c\"\naddress = \"198.18.0.1:8009\"\n");
    assert_eq!(document.to_string(), expected);
    assert_eq!(document.put(&server("other", "c"), new).unwrap(), Put::Created);
    assert!(document.to_string().contains("8003\" }, { "), "{document}");
}

#[test]
fn a_pool_comes_and_goes_with_its_servers() {
    let mut document = document();
    let servers = json!([{ "name": "x", "address": "198.18.0.1:1" }, { "name": "y", "address": "198.18.0.1:2" }]);
    let new = object(json!({ "algorithm": "least-connections", "server": servers }));
    assert_eq!(document.put(&pool("new"), new).unwrap(), Put::Created);
    assert!(document.to_string().contains("[[pool]]\nname = \"new\"\nalgorithm = \"least-connections\"\n"));
    let names: Vec<_> = document.all("pool").iter().map(|pool| pool["name"].clone()).collect();
    assert_eq!(names, ["web", "other", "new"]);
    let again = Document::parse(&document.to_string()).unwrap();
    assert_eq!(again.all("pool"), document.all("pool"));
    document.remove(&pool("new")).unwrap();
    assert_eq!(document.to_string(), TEXT);
}

#[test]
fn a_pool_that_is_put_keeps_what_is_the_same_of_its_servers() {
    let mut document = document();
    let mut web = document.find(&pool("web")).unwrap();
    web["server"].as_array_mut().unwrap()[1] = json!({ "name": "c", "address": "198.18.0.1:9" });
    document.put(&pool("web"), web).unwrap();
    let text = document.to_string();
    assert!(text.contains("ratio = 1   # as strong as b\n\n[[pool.server]]\nname = \"c\""), "{text}");
    assert!(!text.contains("8002"), "{text}");
}

#[test]
fn servers_of_one_name_are_all_there_for_the_proof_to_blame() {
    let mut document = document();
    for twice in ["a", "z"] {
        let twice = json!({ "name": twice, "address": "198.18.0.1:9" });
        document.patch(&pool("web"), object(json!({ "server": [twice, twice] }))).unwrap();
        assert_eq!(document.find(&pool("web")).unwrap()["server"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn tables_within_are_changed_key_by_key() {
    let text = "[[virtual_service]]\nname = \"shop\"\n\n[virtual_service.client_certificates]\nmode = \"required\" # all\nca = \"ca.pem\"\n";
    let mut document = Document::parse(text).unwrap();
    let shop = Place::Named("virtual_service", "shop".to_owned());
    document.patch(&shop, object(json!({ "client_certificates": { "ca": "new.pem" } }))).unwrap();
    assert_eq!(document.to_string(), text.replace("ca.pem", "new.pem"));
    document.patch(&shop, object(json!({ "client_certificates": null }))).unwrap();
    assert_eq!(document.to_string(), "[[virtual_service]]\nname = \"shop\"\n");
    document.patch(&shop, object(json!({ "client_certificates": { "mode": "optional" } }))).unwrap();
    assert!(document.to_string().ends_with("client_certificates = { mode = \"optional\" }\n"), "{document}");
}

#[test]
fn what_cannot_be_is_refused() {
    let mut document = document();
    let put = |document: &mut Document, value| document.put(&server("web", "a"), object(value)).unwrap_err();
    assert!(matches!(put(&mut document, json!({ "name": "b" })), Unchanged::OtherName(..)));
    assert!(matches!(put(&mut document, json!({ "ratio": null })), Unchanged::Null(_)));
    assert!(matches!(put(&mut document, json!({ "ratio": u64::MAX })), Unchanged::Number(_)));
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    assert!(matches!(put(&mut document, json!({ "ratio": deep })), Unchanged::Deep(_)));
    let missing = |done: Result<(), Unchanged>| assert!(matches!(done, Err(Unchanged::Missing(_))));
    missing(document.remove(&server("web", "z")));
    missing(document.remove(&server("nowhere", "a")));
    missing(document.patch(&pool("nowhere"), Body::new()));
    assert!(matches!(Document::parse("pool = 5").unwrap().find(&pool("web")), Err(Unchanged::Form("pool"))));
    assert!(matches!(Document::parse("pool = ").err(), Some(Unchanged::Syntax(_))));
}

proptest::proptest! {
    #[test]
    fn any_body_comes_back_as_it_was_put(key in "[^\u{0}]{1,20}", text: String, number: i64, flag: bool) {
        proptest::prop_assume!(key != "name");
        let mut document = document();
        let new = object(json!({ "name": "n", &key: [text, number, flag, { "inner": text }], "other": { &key: text } }));
        document.put(&server("web", "n"), new.clone()).unwrap();
        let mut again = Document::parse(&document.to_string()).unwrap();
        proptest::prop_assert_eq!(again.find(&server("web", "n")).unwrap(), new);
    }
}
