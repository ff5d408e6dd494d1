//! Enums whose values have the names of an API.

/// An enum that parses from its names and prints them. An unknown name is an error that lists the
/// known ones; `$field` is what the error calls the field.
macro_rules! named {
    (
        $(#[$doc:meta])*
        $name:ident, $field:literal;
        $($(#[$value_doc:meta])* $value:ident = $text:literal,)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(
                #[doc = concat!("`", $text, "`")]
                $(#[$value_doc])*
                $value,
            )*
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[$name] = &[$($name::$value,)*];

            /// The name that it is parsed from.
            pub fn name(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                Self::ALL.iter().find(|value| value.name() == text).copied().ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
                    $crate::error::Error::invalid_input(format!(
                        concat!("unknown ", $field, " `{}`; known: {}"),
                        text,
                        known.join(", ")
                    ))
                    .with("field", $field)
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(super) use named;
