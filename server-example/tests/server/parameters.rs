//! Every row of `docs/fooocus-parameters.md`: its default, its value and its wrong value are sent.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::common::{Server, base64, png};
use crate::generate::refused;

struct Row {
    name: String,
    /// Nothing if the default is filled in.
    default: Option<Value>,
    value: Value,
    is_taken: bool,
    wrong: Value,
}

fn rows() -> Vec<Row> {
    let text = include_str!("../../../docs/fooocus-parameters.md");
    let lines = text.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{line}");
        let value = |cell: &str| match cell.trim_matches('`') {
            "PNG" => json!(base64(&png(1))),
            text => serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {line}")),
        };
        Row {
            name: cells[0].trim_matches('`').to_owned(),
            default: (!cells[1].ends_with('*')).then(|| value(cells[1])),
            value: value(cells[2]),
            is_taken: cells[3] == "taken",
            wrong: value(cells[4]),
        }
    };
    let named = lines.filter(|line| line.matches(" | ").count() == 5);
    named
        .filter(|line| !line.starts_with("| `action") && !line.starts_with("| `/tasks"))
        .map(row)
        .collect()
}

/// What a parameter needs beside itself.
fn beside(name: &str) -> Map<String, Value> {
    let picture = json!(base64(&png(1)));
    let all = match name {
        "uov_input_image" => json!({"uov_method": "Vary (Subtle)"}),
        "uov_method" | "overwrite_vary_strength" => {
            json!({"uov_method": "Vary (Subtle)", "uov_input_image": picture})
        }
        "overwrite_upscale_strength" | "upscale_multiple" => {
            json!({"uov_method": "Upscale (Custom)", "uov_input_image": picture})
        }
        "inpaint_mask_image_upload" | "outpaint_selections" => {
            json!({"inpaint_input_image": picture})
        }
        "inpaint_input_image" | "inpaint_engine" | "inpaint_additional_prompt" => {
            json!({"inpaint_input_image": picture, "inpaint_mask_image_upload": picture})
        }
        // What is answered by a task can be looked up.
        "async_process" | "stream_output" => json!({}),
        _ => json!({"async_process": true}),
    };
    all.as_object().unwrap().clone()
}

async fn record(server: &Server, body: &Value) -> Value {
    let answer = server.post("/v1/engine/generate/", body).await;
    assert_eq!(answer.status, 200, "{body}: {}", String::from_utf8_lossy(&answer.body));
    let id = answer.headers.get("x-task-id").map(|id| id.to_str().unwrap().to_owned());
    let id = id.unwrap_or_else(|| answer.json()["task_id"].as_str().unwrap().to_owned());
    server.ended(&id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_documented_parameter_is_taken_or_refused_as_the_table_says() {
    let (server, _) = Server::new(&[("GENERATE_QUEUE", "200")]).await;
    let rows = rows();
    let plain = record(&server, &json!({})).await["req_params"].clone();
    let names: Vec<_> = plain.as_object().unwrap().keys().cloned().collect();
    assert_eq!(rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>(), names);
    let mut counts = HashMap::<bool, usize>::new();
    for Row { name, default, value, is_taken, wrong } in rows {
        if let Some(default) = default.filter(|_| name != "image_seed") {
            assert_eq!(plain[&name], default, "the default of {name}");
        }
        let with = |value: &Value| {
            let mut body = beside(&name);
            body.insert(name.clone(), value.clone());
            Value::Object(body)
        };
        if is_taken {
            let task = record(&server, &with(&value)).await;
            assert_eq!(task["task_status"], "finished", "{name}: {task}");
            let kept = &task["req_params"][&name];
            let is_picture = name.ends_with("image") || name.ends_with("upload");
            match is_picture && value.is_string() {
                true => assert!(kept.as_str().unwrap().contains("/inputs/"), "{kept}"),
                false if name == "aspect_ratios_selection" => assert_eq!(*kept, "1024*1024"),
                false => assert!(same(kept, &value), "{name}: {kept} for {value}"),
            }
        } else {
            let found = refused(&server.post("/v1/engine/generate/", &with(&value)).await);
            assert_eq!(found.get(&name).map(String::as_str), Some("unsupported"), "{found:?}");
        }
        let found = refused(&server.post("/v1/engine/generate/", &with(&wrong)).await);
        let is_named = found.keys().any(|field| field.split('.').next() == Some(&name));
        assert!(is_named, "{name} {wrong}: {found:?}");
        *counts.entry(is_taken).or_default() += 1;
    }
    assert_eq!((counts[&true], counts[&false]), (66, 7));
}

/// Equal but for the kind of number, and what is filled in within lists.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => one.len() == other.len(),
        _ => one == other,
    }
}
