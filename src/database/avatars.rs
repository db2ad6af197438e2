//! Users' avatars.

use super::{Database, Error};
use crate::auth::session::Millis;

/// A user's avatar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Avatar {
    pub info: AvatarInfo,
    pub bytes: Vec<u8>,
}

/// Metadata of an avatar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvatarInfo {
    pub media_type: String,
    pub updated_at: Millis,
}

impl Database {
    /// Stores a user's avatar and replaces an earlier one; `false`: the user does not exist.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_avatar(&self, user: &str, avatar: &Avatar) -> Result<bool, Error> {
        let insert = self.pool.sql(
            "INSERT INTO avatars (user_id, media_type, picture, updated_at) \
             SELECT id, $2, $3, $4 FROM users WHERE id = $1 \
             ON CONFLICT (user_id) DO UPDATE SET media_type = excluded.media_type, \
             picture = excluded.picture, updated_at = excluded.updated_at RETURNING user_id",
        );
        let insert = insert
            .bind(user)
            .bind(&avatar.info.media_type)
            .bind(&avatar.bytes)
            .bind(avatar.info.updated_at.cast_signed());
        Ok(!self.pool.write(insert).await?.is_empty())
    }

    /// Reads a user's avatar.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn avatar(&self, user: &str) -> Result<Option<Avatar>, Error> {
        let select = self
            .pool
            .sql("SELECT media_type, updated_at, picture FROM avatars WHERE user_id = $1");
        let rows = self.pool.read(select.bind(user)).await?;
        let read = |row: &super::sql::Row| -> Result<Avatar, sqlx::Error> {
            Ok(Avatar {
                info: read_info(row)?,
                bytes: row.get("picture")?,
            })
        };
        Ok(rows.first().map(read).transpose()?)
    }

    /// Reads the metadata of a user's avatar, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn avatar_info(&self, user: &str) -> Result<Option<AvatarInfo>, Error> {
        let select = self
            .pool
            .sql("SELECT media_type, updated_at FROM avatars WHERE user_id = $1");
        let rows = self.pool.read(select.bind(user)).await?;
        Ok(rows.first().map(read_info).transpose()?)
    }

    /// Deletes a user's avatar; returns whether there was one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_avatar(&self, user: &str) -> Result<bool, Error> {
        let delete = self
            .pool
            .sql("DELETE FROM avatars WHERE user_id = $1 RETURNING user_id");
        Ok(!self.pool.write(delete.bind(user)).await?.is_empty())
    }
}

fn read_info(row: &super::sql::Row) -> Result<AvatarInfo, sqlx::Error> {
    let updated_at: i64 = row.get("updated_at")?;
    Ok(AvatarInfo {
        media_type: row.get("media_type")?,
        updated_at: updated_at.cast_unsigned(),
    })
}
