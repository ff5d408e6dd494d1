//! Label files that do not fit the network or are damaged (`w12`).

use tagbrush::{Error, ErrorKind};

use crate::folder::Folder;

/// The label file of the folder, and one with its text changed.
fn text() -> String {
    String::from_utf8(Folder::new().read("selected_tags.csv")).unwrap()
}

fn refused(text: impl AsRef<[u8]>) -> Error {
    let error = Folder::new().write("selected_tags.csv", text).refused();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    error
}

#[test]
fn w12_label_count_against_the_head() {
    let all = text();
    let rows = all.lines().count() - 1;
    let fewer = all.lines().take(rows).collect::<Vec<_>>().join("\n");
    let error = refused(&fewer);
    assert!(error.to_string().contains(&format!("{} rows", rows - 1)), "{error}");
    refused(format!("{all}77,one_more,0,5\n"));
    // Without a declared number of classes the head itself contradicts.
    let folder = Folder::new();
    folder.config(|config| {
        config.as_object_mut().unwrap().remove("num_classes");
        config["pretrained_cfg"].as_object_mut().unwrap().remove("num_classes");
    });
    folder.load().unwrap();
    let error = folder.write("selected_tags.csv", &fewer).refused();
    assert!(error.to_string().contains("head"), "{error}");
}

#[test]
fn w12_byte_order_mark_and_line_ends() {
    let plain = Folder::new().load().unwrap();
    let windows = format!("\u{feff}{}", text().replace('\n', "\r\n"));
    let old_mac = text().replace('\n', "\r");
    for text in [windows, old_mac, text().trim_end().to_owned()] {
        let folder = Folder::new();
        let tagger = folder.write("selected_tags.csv", text).load().unwrap();
        assert_eq!(tagger.labels().as_slice(), plain.labels().as_slice());
    }
}

#[test]
fn w12_duplicate_names() {
    let all = text();
    let rows: Vec<_> = all.lines().collect();
    let last = rows.len() - 1;
    let doubled = [&rows[..last], &[rows[last - 1]]].concat().join("\n");
    let error = refused(doubled);
    let text = error.to_string();
    assert!(text.contains("twice") && text.contains(&format!("line={}", last + 1)), "{text}");
}

#[test]
fn w12_damaged_files() {
    let all = text();
    for text in [
        String::new(),
        "\n\n\n".to_owned(),
        all.replace("name", "title"),
        all.replacen(",9,", ",nine,", 1),
        all.replacen(",9,", ",-9,", 1),
        all.replacen(",9,", ",99999999999,", 1),
        all.replacen("general", "\"general", 1),
        all.replacen("general", "gen,eral", 1),
        all.replace(',', ";"),
        all.replace(',', "\t"),
        "<!DOCTYPE html><html></html>".to_owned(),
    ] {
        refused(text);
    }
    let error = refused([all.as_bytes(), b"\xFF\xFE,0,1,1\n"].concat());
    assert!(error.to_string().contains("not UTF-8"), "{error}");
    let wide: Vec<u8> = all.encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(wide);
}

#[test]
fn w12_missing_label_file_is_named() {
    let folder = Folder::new();
    let error = folder.remove("selected_tags.csv").refused();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.to_string().contains("selected_tags.csv"), "{error}");
}
