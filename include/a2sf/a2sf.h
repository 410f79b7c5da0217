// The whole public interface of liba2sf.
#pragma once

#include <a2sf/batch.h>
#include <a2sf/hook.h>
#include <a2sf/model.h>
#include <a2sf/policy.h>
#include <a2sf/profile.h>
#include <a2sf/result.h>
#include <a2sf/session.h>
#include <a2sf/text.h>
#include <a2sf/token_classes.h>
#include <a2sf/tuned_text.h>
