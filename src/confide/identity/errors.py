"""Expected errors of users, tokens and logins."""

from __future__ import annotations

from confide.errors import ServiceError


class TwoCredentials(ServiceError):
    code = "two-credentials"
    sentence = "The request carries two credentials; send one."


class NoToken(ServiceError):
    code = "no-token"
    sentence = "A token is needed: Authorization: Bearer …"


class InvalidToken(ServiceError):
    code = "invalid-token"
    sentence = "The token is not valid, or no longer."


class LoginFailed(ServiceError):
    code = "login-failed"
    sentence = "Login or password is wrong."


class RateLimited(ServiceError):
    code = "rate-limited"
    sentence = "Too many failed logins; wait before the next try."


class UserExists(ServiceError):
    code = "user-exists"
    sentence = "There is a user with that login."


class LastAdmin(ServiceError):
    code = "last-admin"
    sentence = "The last admin can be neither removed, disabled nor lowered."


class InvalidLogin(ServiceError):
    code = "invalid-login"
    sentence = "A login has 1 to 64 of a-z 0-9 . _ - and begins and ends with a letter or digit."


class InvalidGrant(ServiceError):
    code = "invalid-grant"
    sentence = "A grant is a role on two patterns: an exact name, a prefix with *, or *; admin only on * and *."


class PasswordTooShort(ServiceError):
    code = "password-too-short"
    sentence = "The password is too short."


class PasswordTooLong(ServiceError):
    code = "password-too-long"
    sentence = "The password is longer than 256 characters."


class PasswordCommon(ServiceError):
    code = "password-common"
    sentence = "The password is one that everybody guesses first."


class PasswordMissing(ServiceError):
    code = "password-missing"
    sentence = "The first user needs a password, or nobody could ever log in."
